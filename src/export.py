"""`python src/export.py`: see segnet/commands/export.py and conf/export.yaml."""

from segnet.commands.export import main

if __name__ == "__main__":
    main()
