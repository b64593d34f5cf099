"""temporary"""

import tempfile
import warnings
from pathlib import Path

import torch
from torch import nn

from cbir.descriptors.contract import batches


class _Deployed(nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network = network.eval()

    def forward(self, images):
        e = self.network.embed(images.permute(0, 3, 1, 2).float())
        return e, self.network.classify(e)


def export_float(network, size):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            _Deployed(network).eval(),
            (torch.zeros((2, size, size, 3), dtype=torch.uint8),),
            input_names=["images"],
            output_names=["embedding", "logits"],
            dynamic_shapes={"images": {0: torch.export.Dim("n")}},
            dynamo=True,
            verbose=False,
        )
    m = program.model_proto
    for x in (*m.graph.node, *m.graph.value_info, m.graph):
        x.ClearField("metadata_props")
    return m.SerializeToString()


def quantise(model, images):
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class C:
        def __init__(self):
            self.b = ({"images": s} for s in batches(images, 100))

        def get_next(self):
            return next(self.b, None)

    with tempfile.TemporaryDirectory() as folder:
        plain, source, target = (Path(folder) / name for name in ("plain", "prepared", "int8"))
        plain.write_bytes(model)
        quant_pre_process(plain, source, skip_symbolic_shape=True)
        import onnx

        g = onnx.load(source).graph
        quantize_static(
            source,
            target,
            C(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=["Conv", "Relu", "MaxPool"],
            nodes_to_exclude=[next(n.name for n in g.node if n.op_type == "Conv")],
        )
        return target.read_bytes()
