"""`python src/tune.py`: see segnet/commands/tune.py and conf/tune.yaml."""

from segnet.commands.tune import main

if __name__ == "__main__":
    main()
