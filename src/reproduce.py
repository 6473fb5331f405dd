"""`python src/reproduce.py`: see segnet/commands/reproduce.py and conf/reproduce.yaml."""

from segnet.commands.reproduce import main

if __name__ == "__main__":
    main()
