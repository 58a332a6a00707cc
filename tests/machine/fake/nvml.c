/* A library that answers as NVML does: three GPUs, of which the second counts no energy. Each
 * question finds that 1500 mJ more were used. */
typedef void *device;

int nvmlInit_v2(void);
int nvmlDeviceGetCount_v2(unsigned *n);
int nvmlDeviceGetHandleByIndex_v2(unsigned index, device *out);
int nvmlDeviceGetTotalEnergyConsumption(device d, unsigned long long *mj);

static unsigned long long used[3] = { 1000000, 0, 77 };

int nvmlInit_v2(void)
{
    return 0;
}

int nvmlDeviceGetCount_v2(unsigned *n)
{
    *n = 3;
    return 0;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, device *out)
{
    *out = &used[index];
    return 0;
}

int nvmlDeviceGetTotalEnergyConsumption(device d, unsigned long long *mj)
{
    if (d == &used[1])
        return 3; /* not supported */
    *mj = *(unsigned long long *)d += 1500;
    return 0;
}
