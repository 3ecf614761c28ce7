"""Memory that is free, by which work is divided into parts."""

import psutil
import torch


def free_memory(device: torch.device) -> int:
    """Bytes that are free on a device, without pushing anything out to disk."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available
