"""Makes models of ONNX networks: finds the files, asks what they leave open, tries the network."""
