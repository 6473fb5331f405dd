"""`python src/check_data.py`: see segnet/commands/check_data.py and conf/check_data.yaml."""

from segnet.commands.check_data import main

if __name__ == "__main__":
    main()
