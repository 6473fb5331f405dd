"""`python src/eval.py`: see segnet/commands/eval.py and conf/eval.yaml."""

from segnet.commands.eval import main

if __name__ == "__main__":
    main()
