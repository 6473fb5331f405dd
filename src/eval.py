"""`python src/eval.py`: see segnet/eval.py and conf/eval.yaml."""

from segnet.eval import main

if __name__ == "__main__":
    main()
