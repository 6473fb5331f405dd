"""`python src/train.py`: see segnet/commands/train.py and conf/train.yaml."""

from segnet.commands.train import main

if __name__ == "__main__":
    main()
