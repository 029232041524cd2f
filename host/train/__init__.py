"""Train networks that tolerate bit errors, and export them to ONNX. The only package that imports torch."""
