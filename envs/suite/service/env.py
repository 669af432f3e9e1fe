"""Service: the environments of the family by the name of their domain.

env = make("treegrpo/Service-v0", domain="airline")
"""

from __future__ import annotations

from collections.abc import Mapping

from treegrpo.envs.core import ToolEnv
from treegrpo.envs.errors import UnknownOption, suggest
from treegrpo.envs.suite.service.airline_desk import AirlineDesk
from treegrpo.envs.suite.service.desk import ServiceDesk
from treegrpo.envs.suite.service.file_desk import FileDesk
from treegrpo.envs.suite.service.shop_desk import ShopDesk

DESKS: Mapping[str, type[ServiceDesk]] = {"shop": ShopDesk, "airline": AirlineDesk}


def make_service(
    *,
    domain: str | None = None,
    data: str | None = None,
    render_mode: str | None = None,
    format: str = "hermes",
) -> ToolEnv:
    """Return a service desk.

    Args:
        domain: "shop" (the default) or "airline".
        data: path of a domain folder in the form of tau2-bench, instead of a generated domain.
        render_mode: "ansi" or None.
        format: how actions spell tool calls, "hermes" or "xml".

    Raises:
        UnknownOption: no such domain, or a domain beside a folder.
        DataFileError: a folder that cannot be read.
    """
    if data is not None:
        if domain is not None:
            raise UnknownOption(
                f"domain={domain!r} and data={data!r} of Service asked for; a folder is a domain "
                "of its own. Leave one of them out."
            )
        return FileDesk(data, render_mode=render_mode, format=format)
    domain = "shop" if domain is None else domain
    if domain not in DESKS:
        raise UnknownOption(
            f"domain '{domain}' of Service asked for; it has: {', '.join(DESKS)}."
            f"{suggest(str(domain), DESKS)}"
        )
    return DESKS[domain](render_mode=render_mode, format=format)
