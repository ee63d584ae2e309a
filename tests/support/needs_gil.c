// An extension module that says nothing of the GIL: a free-threaded CPython (3.13+) switches the
// GIL on when it is imported, unless PYTHON_GIL=0 or -X gil=0 forbids that.
#include <Python.h>

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, .m_name = "needs_gil", .m_size = -1};

PyMODINIT_FUNC PyInit_needs_gil(void) { return PyModule_Create(&module); }
