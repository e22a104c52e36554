"""mosd, the only daemon of the host: builds every object once, then keeps the services running."""
