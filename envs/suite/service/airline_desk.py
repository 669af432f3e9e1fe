"""The airline's desk: its tools."""

from __future__ import annotations

from typing import ClassVar

from treegrpo.envs.suite.service import airline
from treegrpo.envs.suite.service.airline_requests import AIRLINE
from treegrpo.envs.suite.service.desk import ServiceDesk
from treegrpo.envs.suite.service.domain import Domain
from treegrpo.envs.tools import tool


class AirlineDesk(ServiceDesk):
    """Passengers with bookings: questions, cancellations, changes of flight, bags, upgrades."""

    domain: ClassVar[Domain] = AIRLINE

    @tool
    def booking_details(self, booking: str) -> str:
        """Show a booking.

        Args:
            booking: the booking's id, such as B12.
        """
        return airline.show_booking(self._desk.store, booking)

    @tool
    def search_flights(self, origin: str, destination: str, day: str) -> str:
        """Show the flights on a route on one day.

        Args:
            origin: the city of departure.
            destination: the city of arrival.
            day: the day of the week.
        """
        return airline.show_flights(self._desk.store, origin, destination, day)

    @tool(effects="write")
    def cancel_booking(self, booking: str) -> str:
        """Cancel a booking and pay it back.

        Args:
            booking: the booking's id.
        """
        return self.write("cancel_booking", booking=booking)

    @tool(effects="write")
    def change_flight(self, booking: str, flight: str) -> str:
        """Put a booking on another flight.

        Args:
            booking: the booking's id.
            flight: the id of the new flight, such as F12.
        """
        return self.write("change_flight", booking=booking, flight=flight)

    @tool(effects="write")
    def add_baggage(self, booking: str, bags: int) -> str:
        """Add bags to a booking.

        Args:
            booking: the booking's id.
            bags: how many bags more.
        """
        return self.write("add_baggage", booking=booking, bags=bags)

    @tool(effects="write")
    def upgrade_fare(self, booking: str) -> str:
        """Upgrade a basic booking to flex.

        Args:
            booking: the booking's id.
        """
        return self.write("upgrade_fare", booking=booking)
