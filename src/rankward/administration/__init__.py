"""What can be done to the loops of an installation: what `/admin`, the portal and the commands stand on."""
