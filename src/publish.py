"""`python src/publish.py`: see segnet/commands/publish.py and conf/publish.yaml."""

from segnet.commands.publish import main

if __name__ == "__main__":
    main()
