"""`python -m kubeactor_operator`: the program, where its console script is not on the path."""

from kubeactor_operator.main import main

main()
