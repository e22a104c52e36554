"""Documents: what people sign, what a machine keeps, what one process leaves for another."""
