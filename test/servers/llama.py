# llama.cpp's server over the small model, until a signal: llama.py DIRECTORY PORT. hostnames and port come before Server.
import os, signal, sys, threading

sys.path.insert(0, sys.argv[1])
import xllamacpp as x

params = x.CommonParams()
params.model.path = os.path.join(sys.argv[1], "model.gguf")
params.port = int(sys.argv[2])
params.hostnames = ["127.0.0.1"]
params.model_alias = {"smollm2-135m"}
params.n_ctx, params.n_parallel = 4096, 4
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
params.endpoint_metrics = True
server = x.Server(params)
stopping = threading.Event()
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, lambda *_: stopping.set())
while not stopping.wait(0.5):
    pass
os._exit(0)
