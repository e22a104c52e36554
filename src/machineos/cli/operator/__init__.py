"""The command of the appliance: mosctl."""
