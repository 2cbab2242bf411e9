/* A stand-in for libnvidia-ml.so.1 with the true structures and return codes (nvml.h, API 13), for machines without a GPU.
 * What it shows is in the file that the environment's NVML_STAND_IN names, read anew when it is replaced, one setting a line:
 *   count=N             GPUs, as of the next nvmlInit_v2; 2 when absent
 *   mig.GPU=PROFILES    that GPU is split into these, separated by commas; an empty one is an instance that is not there
 *   code.CALL=N         that call answers N; code.CALL.GPU=N for one GPU, as in all that follow
 *   value.CALL=N        the figure that it gives; text.CALL=T the text
 *   pids.GPU=A,B        processes that compute on it; none when absent
 *   hang.CALL=MS        it comes back after so many milliseconds
 *   crash.CALL=1        it ends the process by SIGSEGV
 *   forget.CALL=N       it finds NVML uninitialised, as long as it was initialised N times in all
 *   log=PATH            each call appends "PID CALL", nvmlInit_v2 and nvmlShutdown too
 * Compiled with -DOLD_DRIVER it lacks the symbols that came late; with -DNOT_NVML it lacks all. */
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

typedef struct {
  uint32_t gpu, memory;
} nvmlUtilization_t;
typedef struct {
  uint64_t total, free, used;
} nvmlMemory_t;
typedef struct {
  uint32_t version;
  uint64_t total, reserved, free, used;
} nvmlMemory_v2_t;
typedef struct {
  uint32_t pid;
  uint64_t usedGpuMemory;
  uint32_t gpuInstanceId, computeInstanceId;
} nvmlProcessInfo_t;
_Static_assert(sizeof(nvmlProcessInfo_t) == 24, "size");
_Static_assert(sizeof(nvmlUtilization_t) == 8, "size");
_Static_assert(sizeof(nvmlMemory_t) == 24 && offsetof(nvmlMemory_t, used) == 16, "layout");
_Static_assert(sizeof(nvmlMemory_v2_t) == 40 && offsetof(nvmlMemory_v2_t, total) == 8, "layout");
_Static_assert(offsetof(nvmlMemory_v2_t, reserved) == 16 && offsetof(nvmlMemory_v2_t, used) == 32, "layout");

#ifdef NOT_NVML
int nothingOfNvml(void) { return 0; }
#else

enum { UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, INSUFFICIENT_SIZE = 7, VERSION_MISMATCH = 25 };
enum { MAX_GPUS = 64, MAX_INSTANCES = 7, WHOLE = -1 };

/* What a handle (nvmlDevice_t) points to: a GPU, or one of its MIG instances. */
typedef struct {
  int gpu, instance;
} device_t;
static device_t gpus[MAX_GPUS];
static int initializations = 0, initialized_ever = 0;
static unsigned count = 0;

/* The settings, read anew when the file is another one. */
static const char *settings(void) {
  static char text[8192];
  static struct stat read_from;
  const char *path = getenv("NVML_STAND_IN");
  struct stat now;
  if (!path || stat(path, &now)) return "";
  if (now.st_ino == read_from.st_ino && now.st_mtim.tv_sec == read_from.st_mtim.tv_sec &&
      now.st_mtim.tv_nsec == read_from.st_mtim.tv_nsec)
    return text;
  FILE *file = fopen(path, "r");
  if (!file) return "";
  text[fread(text, 1, sizeof text - 1, file)] = 0;
  fclose(file);
  read_from = now;
  return text;
}

/* The setting of that name, into `out`; 0 when there is none. */
static int setting(const char *name, char out[256]) {
  size_t length = strlen(name);
  for (const char *line = settings(); *line; line += strcspn(line, "\n"), line += *line == '\n') {
    if (strncmp(line, name, length) || line[length] != '=') continue;
    snprintf(out, 256, "%.*s", (int)strcspn(line + length + 1, "\n"), line + length + 1);
    return 1;
  }
  return 0;
}

/* The same for one call, and for one GPU before all. An instance is addressed as its GPU is. */
static int setting_of(const char *kind, const char *call, const device_t *device, char out[256]) {
  char name[128];
  snprintf(name, sizeof name, "%s.%s.%d", kind, call, device ? device->gpu : WHOLE);
  if (device && setting(name, out)) return 1;
  snprintf(name, sizeof name, "%s.%s", kind, call);
  return setting(name, out);
}

static uint64_t number(const char *kind, const char *call, const device_t *device, uint64_t otherwise) {
  char text[256];
  return setting_of(kind, call, device, text) ? strtoull(text, NULL, 10) : otherwise;
}

/* Begins a call: notes it, then hangs, crashes or fails as told; 0 when it may go on. */
static int begin(const char *call, const device_t *device) {
  char path[256];
  FILE *log = setting("log", path) ? fopen(path, "a") : NULL;
  if (log) fprintf(log, "%d %s\n", (int)getpid(), call), fclose(log);
  uint64_t ms = number("hang", call, device, 0);
  struct timespec pause = {(time_t)(ms / 1000), (long)(ms % 1000) * 1000000};
  if (ms) nanosleep(&pause, NULL);
  if (number("crash", call, device, 0)) raise(SIGSEGV);
  if (initialized_ever && number("forget", call, device, 0) == (uint64_t)initialized_ever) initializations = 0;
  int code = (int)number("code", call, device, 0);
  if (code) return code;
  return initializations > 0 || !strcmp(call, "nvmlInit_v2") ? 0 : UNINITIALIZED;
}
#define BEGIN(device)                           \
  do {                                          \
    int failed = begin(__func__, device);       \
    if (failed) return failed;                  \
  } while (0)
#define VALUE(device, otherwise) number("value", __func__, device, otherwise)

/* Whether the GPU is split, and into what. */
static int is_split(const device_t *device, char profiles[256]) {
  char name[32];
  snprintf(name, sizeof name, "mig.%d", device->gpu);
  return setting(name, profiles);
}

/* The profile of an instance, into `out`; 0 when it is not there. */
static int profile(const device_t *device, int instance, char out[256]) {
  char all[256], *rest = all;
  if (!is_split(device, all)) return 0;
  for (int i = 0; i < instance; i++) strsep(&rest, ",");
  const char *own = strsep(&rest, ",");
  strcpy(out, own ? own : "");
  return *out != 0;
}

int nvmlInit_v2(void) {
  BEGIN(NULL);
  char text[256];
  initialized_ever++;
  if (initializations++ == 0) count = setting("count", text) ? (unsigned)atoi(text) : 2;
  return 0;
}

int nvmlShutdown(void) {
  BEGIN(NULL);
  initializations--;
  return 0;
}

const char *nvmlErrorString(int code) {
  switch (code) {
    case 3: return "Not Supported";
    case 9: return "Driver Not Loaded";
    case 15: return "GPU is lost";
    case 18: return "Driver/library version mismatch";
    default: return "Unknown Error";
  }
}

int nvmlDeviceGetCount_v2(uint32_t *out) {
  BEGIN(NULL);
  *out = (uint32_t)VALUE(NULL, count);
  return 0;
}

int nvmlDeviceGetHandleByIndex_v2(uint32_t index, device_t **out) {
  device_t asked = {(int)index, WHOLE};
  BEGIN(&asked);
  if (index >= count) return INVALID_ARGUMENT;
  gpus[index] = asked;
  *out = &gpus[index];
  return 0;
}

int nvmlDeviceGetName(const device_t *device, char *out, uint32_t length) {
  BEGIN(device);
  char name[256] = "NVIDIA H100 80GB HBM3", own[256];
  setting_of("text", __func__, device, name);
  if (device->instance != WHOLE && profile(device, device->instance, own)) {
    strcat(name, " MIG ");
    strcat(name, own);
  }
  snprintf(out, length, "%s", name);
  return 0;
}

int nvmlDeviceGetUUID(const device_t *device, char *out, uint32_t length) {
  BEGIN(device);
  char text[256];
  if (setting_of("text", __func__, device, text)) snprintf(out, length, "%s", text);
  else snprintf(out, length, "GPU-%08d-0000-4000-8000-000000000000", device->gpu);
  return 0;
}

int nvmlDeviceGetUtilizationRates(const device_t *device, nvmlUtilization_t *out) {
  BEGIN(device);
  char profiles[256];
  if (is_split(device, profiles)) return NOT_SUPPORTED;
  out->gpu = (uint32_t)VALUE(device, 10 + (uint64_t)device->gpu);
  out->memory = 77;
  return 0;
}

int nvmlDeviceGetMemoryInfo(const device_t *device, nvmlMemory_t *out) {
  BEGIN(device);
  out->total = 81559ull << 20;
  out->used = VALUE(device, (20000ull + 479) << 20);
  out->free = out->total - out->used;
  return 0;
}

int nvmlDeviceGetPowerUsage(const device_t *device, uint32_t *out) {
  BEGIN(device);
  *out = (uint32_t)VALUE(device, 631950 + (uint64_t)device->gpu);
  return 0;
}

#ifndef OLD_DRIVER
int nvmlDeviceGetMemoryInfo_v2(const device_t *device, nvmlMemory_v2_t *out) {
  BEGIN(device);
  if (out->version != (2u << 24 | sizeof *out)) return VERSION_MISMATCH;
  out->total = 81559ull << 20;
  out->reserved = 479ull << 20;
  out->used = VALUE(device, 20000ull << 20);
  out->free = out->total - out->reserved - out->used;
  return 0;
}

int nvmlDeviceGetTotalEnergyConsumption(const device_t *device, uint64_t *out) {
  BEGIN(device);
  *out = VALUE(device, 319159391ull);
  return 0;
}

int nvmlDeviceGetMigMode(const device_t *device, uint32_t *current, uint32_t *pending) {
  BEGIN(device);
  char profiles[256];
  *current = (uint32_t)is_split(device, profiles);
  *pending = 1;
  return 0;
}

int nvmlDeviceGetComputeRunningProcesses_v3(const device_t *device, uint32_t *count, nvmlProcessInfo_t *out) {
  BEGIN(device);
  char name[32], text[256] = "", *rest = text;
  snprintf(name, sizeof name, "pids.%d", device->gpu);
  setting(name, text);
  uint32_t found = 0, room = *count;
  for (char *pid; (pid = strsep(&rest, ",")) && *pid; found++)
    if (found < room) out[found] = (nvmlProcessInfo_t){(uint32_t)atoi(pid), 1ull << 40, ~0u, ~0u};
  *count = found;
  return found > room ? INSUFFICIENT_SIZE : 0;
}

int nvmlDeviceGetMaxMigDeviceCount(const device_t *device, uint32_t *out) {
  BEGIN(device);
  *out = (uint32_t)VALUE(device, MAX_INSTANCES);
  return 0;
}

int nvmlDeviceGetMigDeviceHandleByIndex(const device_t *device, uint32_t index, device_t **out) {
  static device_t instances[MAX_GPUS][MAX_INSTANCES];
  BEGIN(device);
  char text[256];
  if (index >= MAX_INSTANCES || !profile(device, (int)index, text)) return NOT_FOUND;
  device_t *instance = &instances[device->gpu][index];
  *instance = (device_t){device->gpu, (int)index};
  *out = instance;
  return 0;
}
#endif
#endif
