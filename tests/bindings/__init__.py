"""Our code against NVIDIA's own Python modules, without a GPU and without NVIDIA's libraries.

The packages have no types, so `Any` holds their objects in our code. `module_types` and `pycuda_types` write down what
one version of a package has, `typed_copies` replaces each `Any` by the class that it holds, and mypy finds each
attribute, keyword and number of arguments that this version does not have. `subclasses` and `use_driver` run the parts
of our code that need a real module but no GPU.
"""
