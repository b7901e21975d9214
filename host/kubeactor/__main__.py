"""`python -m kubeactor`."""

from kubeactor.cli import main

main()
