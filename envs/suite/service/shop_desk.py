"""The shop's desk: its tools."""

from __future__ import annotations

from typing import ClassVar

from treegrpo.envs.suite.service import shop
from treegrpo.envs.suite.service.desk import ServiceDesk
from treegrpo.envs.suite.service.domain import Domain
from treegrpo.envs.suite.service.shop_requests import SHOP
from treegrpo.envs.tools import tool


class ShopDesk(ServiceDesk):
    """Customers with orders: questions, cancellations, addresses, exchanges, returns, refunds."""

    domain: ClassVar[Domain] = SHOP

    @tool
    def order_details(self, order: str) -> str:
        """Show an order.

        Args:
            order: the order's id, such as O12.
        """
        return shop.show_order(self._desk.store, order)

    @tool
    def product_details(self, product: str) -> str:
        """Show the items of a product: color, price, stock.

        Args:
            product: the name of the product, such as lamp.
        """
        return shop.show_product(self._desk.store, product)

    @tool(effects="write")
    def cancel_order(self, order: str) -> str:
        """Cancel an order and pay it back.

        Args:
            order: the order's id.
        """
        return self.write("cancel_order", order=order)

    @tool(effects="write")
    def change_address(self, order: str, address: str) -> str:
        """Send an order to another address.

        Args:
            order: the order's id.
            address: number and street.
        """
        return self.write("change_address", order=order, address=address)

    @tool(effects="write")
    def exchange_item(self, order: str, item: str, new_item: str) -> str:
        """Exchange an item of an order for another one.

        Args:
            order: the order's id.
            item: the id of the item in the order, such as V12.
            new_item: the id of the item to send instead.
        """
        return self.write("exchange_item", order=order, item=item, new_item=new_item)

    @tool(effects="write")
    def return_item(self, order: str, item: str) -> str:
        """Take an item of an order back and pay its price back.

        Args:
            order: the order's id.
            item: the id of the item in the order.
        """
        return self.write("return_item", order=order, item=item)

    @tool(effects="write")
    def refund(self, order: str, amount: int) -> str:
        """Pay an amount of an order back.

        Args:
            order: the order's id.
            amount: how much.
        """
        return self.write("refund", order=order, amount=amount)
