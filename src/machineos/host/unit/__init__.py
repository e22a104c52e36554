"""What services run on: systemd, LXC, nftables, links."""
