"""A model folder for the app, and ONNX files."""
