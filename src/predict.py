"""`python src/predict.py`: see segnet/commands/predict.py and conf/predict.yaml."""

from segnet.commands.predict import main

if __name__ == "__main__":
    main()
