"""What every loss is, what is done around it, and the table of their names.

A loss is a pure function (logp_E, edges, options) -> LossResult. The decorator makes a `Loss`
of it, which checks the input, fills in the loss's own defaults and, for a loss of sampled
actions ("policy loss"), applies the correction before and adds the KL after. So a user's loss
has both for free:

    @loss("mine", clip_high=0.3)
    def mine(logp_E, edges, options): ...
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from torch import Tensor

from treegrpo.edges import Edges
from treegrpo.envs.errors import TreegrpoError
from treegrpo.losses.correction import corrected
from treegrpo.losses.kl import reference_kl
from treegrpo.losses.options import LossDefaults, LossOptions
from treegrpo.losses.ratio import gap_metrics
from treegrpo.names import Names, blaming

OWN_OPTIONS = ("clip_low", "clip_high", "dual_clip", "dpo_beta")
"""Settings that a loss takes where its decorator names them."""
POLICY_OPTIONS = ("kl_beta", "kl_estimator", "correction", "correction_low", "correction_high")
"""Settings that every policy loss takes."""


@dataclass(frozen=True)
class LossResult:
    """A loss to call backward on, and detached metrics for `summarise`."""

    loss: Tensor
    metrics: dict[str, Tensor]


LossFunction: TypeAlias = Callable[[Tensor, Edges, LossOptions], LossResult]
"""(logp_E with gradient, edges, options) -> result."""


class Loss:
    """A registered loss: call it like the function it was made of.

    Attributes:
        name: its name in the table.
        defaults: its own settings and normaliser; options left at none take these.
        takes: names of the settings that have an effect.
        is_policy: whether corrections and the KL to the reference apply.
        over_pairs: whether it compares steps, and so is no sum over leaves.
    """

    def __init__(
        self,
        name: str,
        function: LossFunction,
        defaults: LossDefaults,
        *,
        is_policy: bool,
        over_pairs: bool,
    ) -> None:
        functools.update_wrapper(self, function)
        self.name, self.defaults = name, defaults
        self.is_policy, self.over_pairs = is_policy, over_pairs
        own = defaults.model_fields_set - {"normaliser"}
        self.takes = frozenset(own | set(POLICY_OPTIONS if is_policy else ()))
        self._function = function

    def __call__(self, logp_E: Tensor, edges: Edges, options: LossOptions) -> LossResult:
        """Return the loss with its KL term, and its metrics.

        Raises:
            TreegrpoError: not one log-prob per edge, a setting without effect, data that the
                loss needs and the edges lack, or whatever a loss of a user's own raises.
        """
        if logp_E.shape != edges.old_logp_E.shape:
            raise TreegrpoError(
                f"Loss '{self.name}' needs one log-prob per edge, {len(edges.old_logp_E)}; found "
                f"shape {tuple(logp_E.shape)}. Gather the targets' log-probs first."
            )
        options = self.resolve(options)
        if not self.is_policy:
            return self._call(logp_E, edges, options)
        used = corrected(edges, options)
        result = self._call(logp_E, used, options)
        total, metrics = result.loss, {**gap_metrics(logp_E, edges), **result.metrics}
        if options.correction != "none":
            metrics["uncorrected_mass"] = (edges.adv_pos_E - edges.adv_neg_E).sum()
            metrics["corrected_mass"] = (used.adv_pos_E - used.adv_neg_E).sum()
        if options.kl_beta:
            kl = reference_kl(logp_E, used, options)
            total, metrics["kl_reference"] = total + options.kl_beta * kl, kl.detach()
        return LossResult(total, metrics)

    def _call(self, logp_E: Tensor, edges: Edges, options: LossOptions) -> LossResult:
        """Return the function's own result, checked."""
        with blaming("loss", self.name, self._function):
            result = self._function(logp_E, edges, options)
        return self._checked(result)

    def _checked(self, result: object) -> LossResult:
        if isinstance(result, LossResult) and not result.loss.shape:
            return result
        found = (
            f"a loss of shape {tuple(result.loss.shape)}"
            if isinstance(result, LossResult)
            else f"a {type(result).__name__}"
        )
        raise TreegrpoError(
            f"Loss '{self.name}' must return LossResult(loss, metrics) with a loss of one number; "
            f"found {found}. Sum over the edges (their weights sum to 1)."
        )

    def resolve(self, options: LossOptions) -> LossOptions:
        """Return the options with this loss's own values where they say none.

        Raises:
            TreegrpoError: settings that would have no effect; the message names them all.
        """
        given = options.given()
        idle = [name for name in given if name not in self.takes]
        if "kl_estimator" in given and "kl_beta" not in given:
            idle.append("kl_estimator")
        if options.correction in ("none", "tis") and "correction_low" in given:
            idle.append("correction_low")
        if options.correction == "none" and "correction_high" in given:
            idle.append("correction_high")
        if idle:
            words = ", ".join(f"{name}={given[name]}" for name in dict.fromkeys(idle))
            takes = ", ".join(sorted(self.takes)) or "no settings"
            raise TreegrpoError(
                f"Loss '{self.name}' asked for with {words}, which has no effect there. Leave it "
                f"out. The loss takes {takes}; kl_estimator needs kl_beta, correction_low needs "
                "icepop or sequence_mask, correction_high any correction."
            )
        own = self.defaults.model_dump(exclude={"normaliser"})
        return LossOptions.model_validate({**own, **given})


_LOSSES: Names[Loss] = Names("loss")


def loss(
    name: str,
    *,
    normaliser: str = "token_mean",
    is_policy: bool = True,
    over_pairs: bool = False,
    **own: float | None,
) -> Callable[[LossFunction], Loss]:
    """Return a decorator that registers a loss.

    A policy loss gets no leaves without any advantage, unless there is a KL: its weights then
    sum to less than 1.

    Args:
        name: how a configuration names it.
        normaliser: the one its weights are usual with.
        is_policy: false for a loss that corrections and a KL have no part in.
        over_pairs: true for a loss that needs edges.preferences.
        own: the settings that the function reads, of OWN_OPTIONS, each with its default; none
            is no bound.

    Raises:
        TreegrpoError: the name is taken; a setting that no loss can have of its own.
    """
    unknown = [key for key in own if key not in OWN_OPTIONS]
    if unknown:
        raise TreegrpoError(
            f"Loss '{name}' asked to have a default for {', '.join(unknown)}. A loss has its own "
            f"{', '.join(OWN_OPTIONS)}; leave the others out."
        )
    defaults = LossDefaults.model_validate({"normaliser": normaliser, **own})

    def register(function: LossFunction) -> Loss:
        one = Loss(name, function, defaults, is_policy=is_policy, over_pairs=over_pairs)
        return _LOSSES.add(name)(one)

    return register


def get_loss(name: str) -> Loss:
    """Return the loss registered as `name`, or as the part after the colon of "module:name".

    Raises:
        UnknownOption: no such loss; suggests the closest name.
    """
    return _LOSSES.get(name)


def loss_names() -> list[str]:
    """Return the registered names, sorted."""
    return _LOSSES.names()


def drop_loss(name: str) -> None:
    """Forget a registered loss, so that its name is free again."""
    _LOSSES.drop(name)


def check_options(name: str, options: LossOptions) -> None:
    """Check options against the loss that they are for, before anything is trained.

    Raises:
        UnknownOption: no such loss.
        TreegrpoError: settings that would have no effect; the message names them all.
    """
    get_loss(name).resolve(options)
