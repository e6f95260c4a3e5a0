"""Runs typical torch operations of GPU programs, one case each, and asserts the results of a GPU.

A case that a GPU rejects, or that only a GPU can run, raises.
"""
import io
import threading
from concurrent.futures import ThreadPoolExecutor

import gradio as gr
import safetensors.torch
import spaces
import torch
from torch import nn
from torch.nn import functional as F

torch.manual_seed(0)
linear = nn.Linear(8, 8).to("cuda")
tied, twin = nn.Linear(8, 8, bias=False).cuda(), nn.Linear(8, 8, bias=False).cuda()
twin.weight = tied.weight
pictures = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU()).to("cuda:0").eval()
half = nn.Sequential(nn.Linear(8, 32), nn.GELU(), nn.Linear(32, 8)).to("cuda", dtype=torch.float16)
encoder = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True).to("cuda", torch.bfloat16).eval()
recurrent = nn.LSTM(8, 8, 2).cuda()
at_home = nn.Linear(8, 8)
base = torch.arange(8.0, device="cuda")
part = base[2:5]

cases = {}


def case(function):
    cases[function.__name__] = function
    return function


def on_cuda(*tensors):
    for one in tensors:
        assert one.device.type == "cuda" and one.is_cuda and not one.is_cpu, one.device


@case
def layers():
    x = torch.randn(2, 8, device="cuda")
    y = linear(x)
    on_cuda(y, pictures(torch.randn(1, 3, 8, 8, device="cuda")), half(x.half()))
    assert torch.allclose(y.cpu(), F.linear(x.cpu(), linear.weight.cpu(), linear.bias.cpu()))
    with torch.inference_mode():
        assert encoder(torch.randn(2, 3, 16, device="cuda", dtype=torch.bfloat16)).dtype == torch.bfloat16
    packed = nn.utils.rnn.pack_padded_sequence(torch.randn(4, 2, 8, device="cuda"), [4, 2])
    on_cuda(recurrent(torch.randn(4, 2, 8, device="cuda"))[0], recurrent(packed)[0].data)


@case
def factories():
    where = torch.device("cuda")
    on_cuda(
        torch.zeros(2, device=where), torch.tensor([1, 2], device=0), torch.arange(3, device="cuda:0"), torch.eye(2, device=where),
        torch.zeros(2).cuda(), torch.zeros(2).to(0), torch.zeros(2).to(where, torch.float16), torch.asarray([1.0], device=where),
        torch.zeros(2, device=where).new_zeros(3), torch.zeros_like(torch.zeros(2, device=where)), torch.cuda.FloatTensor([1.0]),
    )
    assert torch.zeros(2, device=where).cpu().device.type == "cpu"
    with torch.device("cuda"):
        on_cuda(torch.zeros(2), nn.Linear(2, 2).weight)
    torch.set_default_device("cuda")
    on_cuda(torch.zeros(2))
    torch.set_default_device(None)


@case
def what_cuda_says():
    cuda = torch.cuda
    assert cuda.is_available() and cuda.device_count() == 1 and cuda.current_device() == 0
    assert cuda.get_device_properties(0).total_memory == cuda.mem_get_info()[1] > 2**30
    assert cuda.memory_allocated() > 0 and cuda.get_device_name() and cuda.memory_stats() is not None
    begin, end = cuda.Event(enable_timing=True), cuda.Event(enable_timing=True)
    begin.record()
    with cuda.stream(cuda.Stream()):
        torch.randn(100, 100, device="cuda").record_stream(cuda.current_stream())
    end.record()
    cuda.synchronize()
    assert begin.elapsed_time(end) > 0
    assert torch.accelerator.current_accelerator().type == "cuda"


@case
def chance():
    generator = torch.Generator("cuda").manual_seed(3)
    one = torch.randn(4, generator=generator, device="cuda")
    assert torch.equal(one, torch.randn(4, generator=generator.manual_seed(3), device="cuda"))
    assert generator.device.type == "cuda" and isinstance(generator, torch.Generator)
    torch.cuda.manual_seed_all(3)
    two = torch.randn(3, device="cuda")
    torch.cuda.manual_seed(3)
    assert torch.equal(two, torch.randn(3, device="cuda"))


@case
def precision():
    x = torch.randn(2, 8, device="cuda")
    with torch.autocast("cuda", dtype=torch.bfloat16):
        assert linear(x).dtype == torch.bfloat16
    with torch.amp.autocast("cuda"):
        assert linear(x).dtype == torch.float16
    assert linear(x).dtype == torch.float32
    query = torch.randn(1, 2, 5, 8, device="cuda", dtype=torch.float16)
    with nn.attention.sdpa_kernel(nn.attention.SDPBackend.CUDNN_ATTENTION):
        on_cuda(F.scaled_dot_product_attention(query, query, query))
    picture = torch.randn(1, 3, 16, 16, device="cuda").half()
    on_cuda(F.interpolate(picture, scale_factor=2, mode="bicubic"), torch.histc(picture.float()), torch.fft.rfft(picture[0, 0]))


@case
def memory():
    ones = torch.ones(2)
    copy = ones.cuda()
    copy.add_(1)
    assert ones.tolist() == [1.0, 1.0] and copy.to("cuda") is copy
    with torch.no_grad():
        tied.weight.zero_()
    assert tied.weight is twin.weight and twin(torch.ones(1, 8, device="cuda")).abs().sum().item() == 0
    base.add_(10)
    assert part.tolist() == [12.0, 13.0, 14.0]
    base.sub_(10)
    on_cuda(torch.ones(3).pin_memory().to("cuda", non_blocking=True))


@case
def files():
    kept = io.BytesIO()
    torch.save(linear.state_dict(), kept)
    assert b"_fake_device" not in kept.getvalue()
    kept.seek(0)
    on_cuda(torch.load(kept, map_location="cuda")["weight"])
    kept.seek(0)
    assert torch.load(kept, map_location="cpu")["weight"].device.type == "cpu"
    safetensors.torch.save_file({"w": torch.ones(2)}, "w.safetensors")
    on_cuda(safetensors.torch.load_file("w.safetensors", device="cuda")["w"])


@case
def training():
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 1)).cuda()
    optimizer, scaler = torch.optim.AdamW(model.parameters(), lr=0.1, fused=True), torch.amp.GradScaler("cuda")
    x = torch.randn(16, 8, device="cuda")
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        with torch.autocast("cuda", dtype=torch.bfloat16):
            loss = F.mse_loss(model(x), x.sum(1, keepdim=True))
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        losses.append(loss.item())
    assert losses[-1] < losses[0], losses
    leaf = torch.ones(3, requires_grad=True)
    (leaf.cuda() * 2).sum().backward()
    assert leaf.grad.device.type == "cpu"


@case
def moves():
    model = nn.Linear(8, 8).to("cuda")
    model.to("cpu")(torch.ones(1, 8))
    model.cuda().half()
    on_cuda(model.weight, nn.Parameter(torch.ones(2, device="cuda")))


@case
def threads():
    seen = []

    def work():
        seen.append(linear(torch.ones(1, 8, device="cuda")).device.type)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(work).result()
    assert seen == ["cuda", "cuda"], seen


@case
def compiled():
    assert torch.compile(lambda x: x * 2)(torch.ones(2, device="cuda")).tolist() == [2, 2]
    traced = torch.jit.trace(nn.Linear(2, 2).cuda(), torch.ones(1, 2, device="cuda"))
    on_cuda(traced(torch.ones(1, 2, device="cuda")))


@case
def texts():
    ones = torch.ones(2, device="cuda")
    assert "cuda:0" in repr(ones) and ones.type() == "torch.cuda.FloatTensor"
    ones[torch.tensor([0])] = 3
    assert ones.tolist() == [3.0, 1.0] and ones.cpu().numpy().sum() == 4


@case
def refused_other_device():
    linear(torch.ones(1, 8))


@case
def refused_at_home():
    at_home(torch.ones(1, 8, device="cuda"))


@case
def refused_numpy():
    torch.ones(2, device="cuda").numpy()


@case
def gpu_only_operator():
    torch.ops.aten._cudnn_rnn_flatten_weight([torch.ones(2, 2, device="cuda")], 1, 2, 0, 2, 2, 1, False, False)


@case
def gpu_only_graph():
    torch.cuda.CUDAGraph()


@spaces.GPU
def run(name):
    cases[name]()
    return "as on a GPU"


@spaces.GPU
def stream(steps):
    total = torch.zeros(4, device="cuda")
    for _ in range(int(steps)):
        total = total + base[:4]
        yield f"{total.sum().item()} {total.device}"


with gr.Blocks() as demo:
    name, out = gr.Textbox(), gr.Textbox()
    gr.Button().click(lambda: " ".join(cases), None, out, api_name="cases")
    gr.Button().click(run, name, out, api_name="run")
    gr.Button().click(stream, gr.Number(), out, api_name="stream")

demo.queue(max_size=10).launch()
