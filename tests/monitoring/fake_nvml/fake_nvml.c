/* A pretended libnvidia-ml.so.1 for the tests: eight GPUs (or FAKE_NVML_GPUS), the first divided into FAKE_NVML_MIG
 * instances. Every function can be told to fail with a code, to answer with all bits set, and every GPU to be unplugged.
 *
 * Build: cc -shared -fPIC -O1 -Wl,-soname,libnvidia-ml.so.1 -o libnvidia-ml.so.1 fake_nvml.c
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SUCCESS = 0, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, INSUFFICIENT_SIZE = 7, TIMEOUT = 10, GPU_IS_LOST = 15 };
enum { MOST_GPUS = 16, MOST_INSTANCES = 7, MOST_FAULTS = 64 };
typedef int Ret;
typedef unsigned long long u64;
typedef struct device { int index, instance, unplugged; u64 asked; } Device;

static Device gpus[MOST_GPUS], instances[MOST_INSTANCES];
static int gpu_count = -1, instance_count, fault_count;
static struct { char name[64]; int code; } faults[MOST_FAULTS];
static struct { int gpu; u64 number; } xids[8];
static int xid_count;
static u64 calls;
static unsigned process_id = 1000000;
static long live_gpm_samples, live_event_sets, open_count;

static void set_up(void) {
    if (gpu_count >= 0) return;
    const char *count = getenv("FAKE_NVML_GPUS"), *mig = getenv("FAKE_NVML_MIG");
    gpu_count = count ? atoi(count) : 8;
    instance_count = mig ? atoi(mig) : 0;
    for (int i = 0; i < MOST_GPUS; i++) gpus[i] = (Device){i, -1, 0, 0};
    for (int i = 0; i < MOST_INSTANCES; i++) instances[i] = (Device){0, i, 0, 0};
}

/* --- what the tests turn ------------------------------------------------------------------------------------------ */
void fake_fail(const char *name, int code) { /* code -1: answer with all bits set */
    snprintf(faults[fault_count].name, 64, "%s", name);
    faults[fault_count++].code = code;
}
void fake_heal(void) { fault_count = 0; for (int i = 0; i < MOST_GPUS; i++) gpus[i].unplugged = 0; }
void fake_gpus(int gpu, int mig) { set_up(); gpu_count = gpu; instance_count = mig; }
void fake_unplug(int gpu) { set_up(); gpus[gpu].unplugged = 1; }
void fake_xid(int gpu, u64 number) { xids[xid_count].gpu = gpu; xids[xid_count++].number = number; }
void fake_process(unsigned pid) { process_id = pid; } /* of GPU 0; the next ones count up */
void fake_forget(void) { live_gpm_samples = live_event_sets = open_count = 0; }
u64 fake_calls(void) { return calls; }
long fake_leaks(void) { return live_gpm_samples + live_event_sets + open_count; }

static int fault(const char *name) {
    calls++;
    set_up();
    for (int i = 0; i < fault_count; i++)
        if (!strcmp(faults[i].name, name)) return faults[i].code;
    return 0;
}
static Ret of_device(const char *name, Device *device) {
    int code = fault(name);
    if (code > 0) return code;
    if (!device) return INVALID_ARGUMENT;
    return gpus[device->index].unplugged ? GPU_IS_LOST : SUCCESS;
}
#define BEGIN(device) do { Ret ret = of_device(__func__, device); if (ret) return ret; } while (0)
#define BEGIN_PLAIN() do { int code = fault(__func__); if (code > 0) return code; } while (0)
#define GIVE(place, value) do { \
    if (fault(__func__) < 0) memset((place), 0xff, sizeof *(place)); else *(place) = (value); } while (0)
#define NUMBER(function, type, value) \
    Ret function(Device *d, type *out) { BEGIN(d); GIVE(out, (type)(value)); return SUCCESS; }

/* --- NVML --------------------------------------------------------------------------------------------------------- */
Ret nvmlInitWithFlags(unsigned flags) { (void)flags; BEGIN_PLAIN(); open_count++; return SUCCESS; }
Ret nvmlShutdown(void) { BEGIN_PLAIN(); open_count--; return SUCCESS; }
const char *nvmlErrorString(Ret code) { (void)code; return "made up"; }
Ret nvmlSystemGetDriverVersion(char *out, unsigned size) {
    BEGIN_PLAIN();
    if (fault(__func__) < 0) memset(out, 0xff, size - 1), out[size - 1] = 0; else snprintf(out, size, "580.95.05");
    return SUCCESS;
}
Ret nvmlDeviceGetCount_v2(unsigned *out) { BEGIN_PLAIN(); GIVE(out, (unsigned)gpu_count); return SUCCESS; }
Ret nvmlDeviceGetHandleByIndex_v2(unsigned index, Device **out) {
    BEGIN_PLAIN();
    if ((int)index >= gpu_count) return INVALID_ARGUMENT;
    if (gpus[index].unplugged) return GPU_IS_LOST;
    *out = &gpus[index];
    return SUCCESS;
}
Ret nvmlDeviceGetName(Device *d, char *out, unsigned size) {
    BEGIN(d);
    if (fault(__func__) < 0) memset(out, 0xff, size - 1), out[size - 1] = 0;
    else snprintf(out, size, d->instance < 0 ? "NVIDIA H200" : "NVIDIA H200 MIG 1g.18gb");
    return SUCCESS;
}
Ret nvmlDeviceGetUUID(Device *d, char *out, unsigned size) {
    BEGIN(d);
    if (fault(__func__) < 0) memset(out, 0xff, size - 1), out[size - 1] = 0;
    else if (d->instance < 0) snprintf(out, size, "GPU-%08d", d->index);
    else snprintf(out, size, "MIG-%08d-%d", d->index, d->instance);
    return SUCCESS;
}
Ret nvmlDeviceGetMigMode(Device *d, unsigned *now, unsigned *pending) {
    BEGIN(d);
    GIVE(now, (unsigned)(d->index == 0 && instance_count > 0));
    *pending = *now;
    return SUCCESS;
}
NUMBER(nvmlDeviceGetMaxMigDeviceCount, unsigned, MOST_INSTANCES)
Ret nvmlDeviceGetMigDeviceHandleByIndex(Device *d, unsigned index, Device **out) {
    BEGIN(d);
    if ((int)index >= instance_count) return NOT_FOUND;
    *out = &instances[index];
    return SUCCESS;
}
Ret nvmlDeviceGetGpuInstanceId(Device *d, unsigned *out) { BEGIN(d); GIVE(out, (unsigned)d->instance + 7); return SUCCESS; }

struct utilisation { unsigned gpu, memory; };
Ret nvmlDeviceGetUtilizationRates(Device *d, struct utilisation *out) {
    BEGIN(d);
    if (d->instance >= 0) return NOT_SUPPORTED;
    GIVE(out, ((struct utilisation){90 + d->index, 40}));
    return SUCCESS;
}
struct memory { u64 total, free, used; };
Ret nvmlDeviceGetMemoryInfo(Device *d, struct memory *out) {
    BEGIN(d);
    GIVE(out, ((struct memory){150000000000ULL, 100000000000ULL, 50000000000ULL}));
    return SUCCESS;
}
struct memory_v2 { unsigned version; u64 total, reserved, free, used; };
Ret nvmlDeviceGetMemoryInfo_v2(Device *d, struct memory_v2 *out) {
    BEGIN(d);
    GIVE(out, ((struct memory_v2){out->version, 150000000000ULL, 600000000ULL, 100000000000ULL, 49400000000ULL}));
    return SUCCESS;
}
NUMBER(nvmlDeviceGetPowerUsage, unsigned, 600000 + 1000 * d->index)
NUMBER(nvmlDeviceGetEnforcedPowerLimit, unsigned, 700000)
NUMBER(nvmlDeviceGetTotalEnergyConsumption, u64, 123456789000ULL)
Ret nvmlDeviceGetTemperature(Device *d, int sensor, unsigned *out) { (void)sensor; BEGIN(d); GIVE(out, 61u + d->index); return SUCCESS; }
Ret nvmlDeviceGetTemperatureThreshold(Device *d, int which, unsigned *out) { (void)which; BEGIN(d); GIVE(out, 87u); return SUCCESS; }
Ret nvmlDeviceGetClockInfo(Device *d, int which, unsigned *out) { BEGIN(d); GIVE(out, which == 1 ? 1905u : 3201u); return SUCCESS; }
Ret nvmlDeviceGetMaxClockInfo(Device *d, int which, unsigned *out) { (void)which; BEGIN(d); GIVE(out, 1980u); return SUCCESS; }
NUMBER(nvmlDeviceGetCurrentClocksEventReasons, u64, 4)
NUMBER(nvmlDeviceGetCurrentClocksThrottleReasons, u64, 4)
NUMBER(nvmlDeviceGetCurrPcieLinkGeneration, unsigned, 5)
NUMBER(nvmlDeviceGetMaxPcieLinkGeneration, unsigned, 5)
NUMBER(nvmlDeviceGetCurrPcieLinkWidth, unsigned, 16)
NUMBER(nvmlDeviceGetMaxPcieLinkWidth, unsigned, 16)
Ret nvmlDeviceGetPcieThroughput(Device *d, int which, unsigned *out) { (void)which; BEGIN(d); GIVE(out, 250000u); return SUCCESS; }
Ret nvmlDeviceGetNvLinkState(Device *d, unsigned link, int *out) { BEGIN(d); GIVE(out, link < 18); return SUCCESS; }
Ret nvmlDeviceGetTotalEccErrors(Device *d, int type, int counter, u64 *out) {
    (void)counter; BEGIN(d); GIVE(out, type == 0 ? 3ULL : 0ULL); return SUCCESS;
}
Ret nvmlDeviceGetRemappedRows(Device *d, unsigned *corrected, unsigned *lost, unsigned *pending, unsigned *failed) {
    BEGIN(d);
    GIVE(corrected, 1u); GIVE(lost, 0u); GIVE(pending, 0u); GIVE(failed, 0u);
    return SUCCESS;
}
struct field { unsigned id, scope; long long time, latency; int type; Ret ret; union { double d; unsigned u; u64 ull; } value; };
Ret nvmlDeviceGetFieldValues(Device *d, int count, struct field *fields) {
    BEGIN(d);
    d->asked++;
    for (int i = 0; i < count; i++) {
        struct field *field = &fields[i];
        field->ret = SUCCESS;
        field->type = field->id == 82 ? 1 : 3;
        if (field->id == 82) field->value.u = 66; else field->value.ull = 1000000ULL * d->asked;
        if (fault(__func__) < 0) memset(&field->value, 0xff, sizeof field->value);
        if (fault("nvmlDeviceGetFieldValues:each") > 0) field->ret = fault("nvmlDeviceGetFieldValues:each");
    }
    return SUCCESS;
}
struct process { unsigned pid; u64 memory; unsigned gpu_instance, compute_instance; };
Ret nvmlDeviceGetComputeRunningProcesses_v3(Device *d, unsigned *count, struct process *out) {
    BEGIN(d);
    if (*count < 1) { *count = 1; return INSUFFICIENT_SIZE; }
    *count = 1;
    GIVE(out, ((struct process){process_id + d->index, 40000000000ULL, 0, 0}));
    return SUCCESS;
}
/* events */
struct event { Device *device; u64 type, data; unsigned gpu_instance, compute_instance; };
Ret nvmlEventSetCreate(void **out) { BEGIN_PLAIN(); *out = malloc(1); live_event_sets++; return SUCCESS; }
Ret nvmlEventSetFree(void *set) { BEGIN_PLAIN(); free(set); live_event_sets--; return SUCCESS; }
Ret nvmlDeviceRegisterEvents(Device *d, u64 types, void *set) { (void)types; (void)set; BEGIN(d); return SUCCESS; }
Ret nvmlEventSetWait_v2(void *set, struct event *out, unsigned patience) {
    (void)set; (void)patience;
    BEGIN_PLAIN();
    if (!xid_count) return TIMEOUT;
    xid_count--;
    *out = (struct event){&gpus[xids[xid_count].gpu], 8, xids[xid_count].number, 0, 0};
    return SUCCESS;
}
/* performance counters */
struct support { unsigned version, supported; };
struct metric { unsigned id; Ret ret; double value; const char *names[3]; };
struct metrics { unsigned version, count; void *before, *now; struct metric metrics[333]; };
Ret nvmlGpmQueryDeviceSupport(Device *d, struct support *out) { BEGIN(d); GIVE(&out->supported, 1u); return SUCCESS; }
Ret nvmlGpmSampleAlloc(void **out) { BEGIN_PLAIN(); *out = malloc(1); live_gpm_samples++; return SUCCESS; }
Ret nvmlGpmSampleFree(void *sample) { BEGIN_PLAIN(); free(sample); live_gpm_samples--; return SUCCESS; }
Ret nvmlGpmSampleGet(Device *d, void *sample) { BEGIN(d); return sample ? SUCCESS : INVALID_ARGUMENT; }
Ret nvmlGpmMigSampleGet(Device *d, unsigned instance, void *sample) { (void)instance; BEGIN(d); return sample ? SUCCESS : INVALID_ARGUMENT; }
Ret nvmlGpmMetricsGet(struct metrics *out) {
    BEGIN_PLAIN();
    for (unsigned i = 0; i < out->count; i++) {
        out->metrics[i].ret = SUCCESS;
        out->metrics[i].value = 10.0 * out->metrics[i].id;
        if (fault(__func__) < 0) memset(&out->metrics[i].value, 0xff, sizeof(double));
        if (fault("nvmlGpmMetricsGet:each") > 0) out->metrics[i].ret = fault("nvmlGpmMetricsGet:each");
    }
    return SUCCESS;
}
