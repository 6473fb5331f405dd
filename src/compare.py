"""`python src/compare.py`: see segnet/commands/compare.py and conf/compare.yaml."""

from segnet.commands.compare import main

if __name__ == "__main__":
    main()
