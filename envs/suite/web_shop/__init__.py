"""WebShop: a simulated shop to search and order in; an order cannot be taken back."""

from treegrpo.envs.suite.web_shop.env import WebShopEnv

__all__ = ["WebShopEnv"]
