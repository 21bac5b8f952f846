"""NVIDIA's run-time compiler, called through its C interface: CUDA source in, PTX text out. It needs no GPU."""

import ctypes
import importlib.util
import pathlib


class CompileError(Exception):
    """The compiler refused a source; the message is its log."""


class Nvrtc:
    """One loaded compiler."""

    def __init__(self):
        folder = _folder_of_the_wheel()
        # The compiler opens its second half by its bare name, which is found because it is loaded already.
        for part in sorted(folder.glob("libnvrtc-builtins.so*")):
            ctypes.CDLL(str(part), mode=ctypes.RTLD_GLOBAL)
        library = next(iter(sorted(folder.glob("libnvrtc.so*"))), None)
        if library is None:
            raise OSError(f"no libnvrtc.so in {folder}, expected from the wheel nvidia-cuda-nvrtc-cu12")
        self.api = ctypes.CDLL(str(library))
        self.api.nvrtcGetErrorString.restype = ctypes.c_char_p

    def version(self):
        """Such as `12.4`."""
        major, minor = ctypes.c_int(), ctypes.c_int()
        self._call("nvrtcVersion", ctypes.byref(major), ctypes.byref(minor))
        return f"{major.value}.{minor.value}"

    def ptx(self, source, name, options):
        """The PTX of `source` (text), which messages call `name`, and the compiler's log: warnings, or nothing."""
        program = ctypes.c_void_p()
        self._call(
            "nvrtcCreateProgram", ctypes.byref(program), source.encode(), name.encode(), 0, None, None
        )
        try:
            words = (ctypes.c_char_p * len(options))(*[option.encode() for option in options])
            status = self.api.nvrtcCompileProgram(program, len(options), words)
            log = self._text("nvrtcGetProgramLogSize", "nvrtcGetProgramLog", program).strip()
            if status != 0:
                raise CompileError(log or self.api.nvrtcGetErrorString(status).decode())
            return self._text("nvrtcGetPTXSize", "nvrtcGetPTX", program), log
        finally:
            self.api.nvrtcDestroyProgram(ctypes.byref(program))

    def _text(self, size_of, fill, program):
        size = ctypes.c_size_t()
        self._call(size_of, program, ctypes.byref(size))
        text = ctypes.create_string_buffer(size.value)
        self._call(fill, program, text)
        return text.value.decode()

    def _call(self, function, *arguments):
        status = getattr(self.api, function)(*arguments)
        if status != 0:
            raise OSError(f"{function}: {self.api.nvrtcGetErrorString(status).decode()}")


def _folder_of_the_wheel():
    try:
        spec = importlib.util.find_spec("nvidia.cuda_nvrtc")
    except ModuleNotFoundError:
        spec = None
    if spec is None:
        raise OSError("the Python package nvidia-cuda-nvrtc-cu12 is not installed here")
    return pathlib.Path(next(iter(spec.submodule_search_locations))) / "lib"
