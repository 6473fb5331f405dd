"""`python src/demo.py`: see segnet/commands/demo.py and conf/demo.yaml."""

from segnet.commands.demo import main

if __name__ == "__main__":
    main()
