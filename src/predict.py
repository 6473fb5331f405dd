"""`python src/predict.py`: see segnet/predict.py and conf/predict.yaml."""

from segnet.predict import main

if __name__ == "__main__":
    main()
