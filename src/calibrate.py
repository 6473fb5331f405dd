"""`python src/calibrate.py`: see segnet/commands/calibrate.py and conf/calibrate.yaml."""

from segnet.commands.calibrate import main

if __name__ == "__main__":
    main()
