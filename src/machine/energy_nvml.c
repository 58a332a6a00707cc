#include "machine/energy_nvml.h"

#include "base/sys.h"

#include <stdio.h>

/* Of nvml.h: all return 0 for success. */
typedef int (*init_fn)(void);
typedef int (*count_fn)(unsigned *n);
typedef int (*handle_fn)(unsigned index, void **device);

static void take_devices(struct nvml *v, count_fn count, handle_fn handle)
{
    unsigned n = 0;
    if (count(&n) != 0)
        n = 0;
    for (unsigned i = 0; i < n && v->n < NVML_DEVICES; i++)
        if (handle(i, &v->device[v->n]) == 0 &&
            v->energy(v->device[v->n], &v->last[v->n]) == 0)
            v->n++;
    if (v->n == 0)
        snprintf(v->why, sizeof v->why, "none of %u GPUs counts its energy", n);
}

void nvml_open(struct nvml *v, const char *library)
{
    const char *why = "";
    *v = (struct nvml){ 0 };
    init_fn init = (init_fn)sys_load(library, "nvmlInit_v2", &why);
    count_fn count = (count_fn)sys_load(library, "nvmlDeviceGetCount_v2", &why);
    handle_fn handle = (handle_fn)sys_load(library, "nvmlDeviceGetHandleByIndex_v2", &why);
    v->energy = (int (*)(void *, unsigned long long *))sys_load(
        library, "nvmlDeviceGetTotalEnergyConsumption", &why);
    if (!init || !count || !handle || !v->energy)
        snprintf(v->why, sizeof v->why, "%s", why);
    else if (init() != 0)
        snprintf(v->why, sizeof v->why, "%s does not start", library);
    else
        take_devices(v, count, handle);
}

void nvml_read(struct nvml *v)
{
    for (int i = 0; i < v->n; i++) {
        unsigned long long now;
        if (v->energy(v->device[i], &now) != 0 || now < v->last[i])
            continue;
        v->joules += 1e-3 * (double)(now - v->last[i]);
        v->last[i] = now;
    }
}
