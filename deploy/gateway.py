"""Dask Gateway on one machine, on loopback, for whoever knows the password in LRGLS_GATEWAY_PASSWORD."""

import os

c = get_config()  # noqa: F821  the server gives it

c.DaskGateway.backend_class = "dask_gateway_server.backends.local.UnsafeLocalBackend"
c.DaskGateway.authenticator_class = "dask_gateway_server.auth.SimpleAuthenticator"
c.SimpleAuthenticator.password = os.environ["LRGLS_GATEWAY_PASSWORD"]  # without one it would let in everybody
c.Proxy.address = "127.0.0.1:" + os.environ.get("LRGLS_GATEWAY_PORT", "8000")
c.LocalBackend.clusters_directory = os.environ.get("LRGLS_GATEWAY_FOLDER", "/tmp/lrgls-gateway")
c.ClusterConfig.scheduler_cmd = ["dask", "scheduler"]
c.ClusterConfig.worker_cmd = ["dask", "worker"]
c.ClusterConfig.worker_cores = 1
c.ClusterConfig.worker_memory = "2 G"
c.ClusterConfig.idle_timeout = 3600.0
c.ClusterConfig.environment = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
