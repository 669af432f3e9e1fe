"""Service: customers of a shop or an airline, a written policy, tools without a way back."""

from treegrpo.envs.suite.service.airline_desk import AirlineDesk
from treegrpo.envs.suite.service.env import make_service
from treegrpo.envs.suite.service.shop_desk import ShopDesk

__all__ = ["AirlineDesk", "ShopDesk", "make_service"]
