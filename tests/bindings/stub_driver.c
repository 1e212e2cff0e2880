/* Stands in for NVIDIA's driver of CUDA 12.6, libcuda.so.1, with host memory: work runs when it is queued, or is
   recorded into a graph while its stream is captured. It shows that cuda-bindings accepts the calls of our code and
   passes them on, not that a GPU does what they ask for. */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NOT_FOUND = 500 };
enum { MEMORY_BYTES = 1 << 20, DRIVER_VERSION = 12060, ELAPSED_V2 = 12080 };

typedef struct { void *target; const void *source; size_t size; } Copy;
typedef struct { Copy copies[8]; int count; } Graph;
typedef struct { Graph *captured; } Stream;
typedef struct { unsigned flags; float time_ms; } Event;

static size_t used_bytes;
static float now_ms;
static int live;

static int allocate(void **result, size_t size) {
    if (used_bytes + size > MEMORY_BYTES) return OUT_OF_MEMORY;
    size_t *block = malloc(sizeof(size_t) * 2 + size);
    *block = size, used_bytes += size, live++;
    *result = block + 2;
    return SUCCESS;
}

static int release(void *memory) {
    size_t *block = (size_t *)memory - 2;
    used_bytes -= *block, live--;
    free(block);
    return SUCCESS;
}

static void *create(size_t size) { live++; return calloc(1, size); }

static int destroy(void *object) { live--; free(object); return SUCCESS; }

static int copy(void *target, const void *source, size_t size, Stream *stream) {
    now_ms += 1;
    if (stream->captured) stream->captured->copies[stream->captured->count++] = (Copy){target, source, size};
    else memcpy(target, source, size);
    return SUCCESS;
}

int cuInit(unsigned flags) { return flags; }
int cuDriverGetVersion(int *version) { return *version = DRIVER_VERSION, SUCCESS; }
int cuDeviceGetCount(int *count) { return *count = 1, SUCCESS; }
int cuDeviceGet(int *device, int index) { return *device = index, SUCCESS; }
int cuDeviceGetName(char *name, int size, int device) { return strncpy(name, "stand-in", size), device; }
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    return *value = attribute == 75 ? 8 : attribute == 76 ? 7 : getenv("INTEGRATED") != NULL, device;
}
int cuDevicePrimaryCtxRetain(void **context, int device) { return live++, *context = &live, device; }
int cuDevicePrimaryCtxRelease(int device) { return live--, device; }
int cuCtxPushCurrent(void *context) { return context != &live; }
int cuCtxPopCurrent(void **context) { return *context = &live, SUCCESS; }
int cuMemAlloc(void **result, size_t size) { return allocate(result, size); }
int cuMemFree(void *memory) { return release(memory); }
int cuMemHostAlloc(void **result, size_t size, unsigned flags) {
    return flags & ~2U ? INVALID_VALUE : allocate(result, size); /* CU_MEMHOSTALLOC_DEVICEMAP */
}
int cuMemFreeHost(void *memory) { return release(memory); }
int cuMemHostGetDevicePointer(void **result, void *memory, unsigned flags) { return *result = memory, (int)flags; }
int cuMemcpyHtoDAsync(void *to, const void *from, size_t size, Stream *stream) { return copy(to, from, size, stream); }
int cuMemcpyDtoHAsync(void *to, const void *from, size_t size, Stream *stream) { return copy(to, from, size, stream); }
int cuStreamCreate(Stream **stream, unsigned flags) {
    *stream = create(sizeof(Stream));
    return flags != 1; /* CU_STREAM_NON_BLOCKING */
}
int cuStreamDestroy(Stream *stream) { return destroy(stream); }
int cuStreamSynchronize(Stream *stream) { return stream->captured != NULL; }
int cuStreamBeginCapture(Stream *stream, int mode) {
    stream->captured = create(sizeof(Graph));
    return mode != 1; /* CU_STREAM_CAPTURE_MODE_THREAD_LOCAL */
}
int cuStreamEndCapture(Stream *stream, Graph **graph) {
    *graph = stream->captured, stream->captured = NULL;
    return SUCCESS;
}
int cuGraphInstantiate(Graph **executable, Graph *graph, unsigned long long flags) {
    *executable = create(sizeof(Graph));
    **executable = *graph;
    return (int)flags;
}
int cuGraphDestroy(Graph *graph) { return destroy(graph); }
int cuGraphExecDestroy(Graph *graph) { return destroy(graph); }
int cuGraphLaunch(Graph *graph, Stream *stream) {
    for (Copy *next = graph->copies; next < graph->copies + graph->count; next++)
        copy(next->target, next->source, next->size, stream);
    return SUCCESS;
}
int cuEventCreate(Event **event, unsigned flags) {
    *event = create(sizeof(Event));
    (*event)->flags = flags;
    return SUCCESS;
}
int cuEventRecord(Event *event, Stream *stream) { return event->time_ms = now_ms, stream == NULL; }
int cuEventSynchronize(Event *event) { return event == NULL; }
int cuEventElapsedTime(float *time_ms, Event *start, Event *end) {
    *time_ms = end->time_ms - start->time_ms;
    return (start->flags | end->flags) & 2 ? INVALID_VALUE : SUCCESS; /* CU_EVENT_DISABLE_TIMING */
}
int cuEventDestroy(Event *event) { return destroy(event); }

int cuGetProcAddress_v2(const char *name, void **function, int version, uint64_t flags, int *status);

/* Number of objects, blocks and contexts that were not released. */
int count_live(void) { return live; }

#define ENTRY(name) {#name, name}
static const struct { const char *name; void *function; } FUNCTIONS[] = {
    ENTRY(cuInit), ENTRY(cuDriverGetVersion), ENTRY(cuDeviceGetCount), ENTRY(cuDeviceGet), ENTRY(cuDeviceGetName),
    ENTRY(cuDeviceGetAttribute), ENTRY(cuDevicePrimaryCtxRetain), ENTRY(cuDevicePrimaryCtxRelease),
    ENTRY(cuCtxPushCurrent), ENTRY(cuCtxPopCurrent), ENTRY(cuMemAlloc), ENTRY(cuMemFree), ENTRY(cuMemHostAlloc),
    ENTRY(cuMemFreeHost), ENTRY(cuMemHostGetDevicePointer), ENTRY(cuMemcpyHtoDAsync), ENTRY(cuMemcpyDtoHAsync),
    ENTRY(cuStreamCreate), ENTRY(cuStreamDestroy), ENTRY(cuStreamSynchronize), ENTRY(cuStreamBeginCapture),
    ENTRY(cuStreamEndCapture), ENTRY(cuGraphInstantiate), ENTRY(cuGraphDestroy), ENTRY(cuGraphExecDestroy),
    ENTRY(cuGraphLaunch), ENTRY(cuEventCreate), ENTRY(cuEventRecord), ENTRY(cuEventSynchronize),
    ENTRY(cuEventElapsedTime), ENTRY(cuEventDestroy),
    {"cuGraphInstantiateWithFlags", cuGraphInstantiate},
    {"cuGetProcAddress", cuGetProcAddress_v2},
};

/* Find a function as the driver of CUDA 12.6 does: it has none of the newer cuEventElapsedTime. */
int cuGetProcAddress_v2(const char *name, void **function, int version, uint64_t flags, int *status) {
    *function = NULL;
    (void)flags, (void)status;
    for (size_t i = 0; i < sizeof FUNCTIONS / sizeof *FUNCTIONS; i++)
        if (!strcmp(name, FUNCTIONS[i].name) && !(version >= ELAPSED_V2 && !strcmp(name, "cuEventElapsedTime")))
            return *function = FUNCTIONS[i].function, SUCCESS;
    return NOT_FOUND;
}
