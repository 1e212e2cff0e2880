/* Stands in for libnvinfer, libnvinfer_plugin and libnvonnxparser, so that TensorRT's Python module can be imported.
   The module refers to these symbols; to import it, nothing calls them. */

#define STUB(name) \
    void *name(void) { return 0; }

STUB(createInferBuilder_INTERNAL)
STUB(createInferRefitter_INTERNAL)
STUB(createInferRuntime_INTERNAL)
STUB(createNvOnnxParserRefitter_INTERNAL)
STUB(createNvOnnxParser_INTERNAL)
STUB(getBuilderPluginRegistry)
STUB(getNvOnnxParserVersion)
STUB(getPluginRegistry)
STUB(initLibNvInferPlugins)
