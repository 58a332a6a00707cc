#include "plan/plan_files.h"

#include "base/err.h"
#include "base/recipe.h"
#include "base/sys.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

int plan_file_find(char *path, i64 capacity, const char *folder, const char *name)
{
    const char *roots[] = { ".", HEADWAY_SOURCE_DIR };
    const char *ending = strrchr(name, '.') ? "" : ".yaml";
    snprintf(path, (size_t)capacity, "%s", name);
    if (strchr(name, '/') || sys_exists(path))
        return OK;
    for (i64 i = 0; i < COUNT_OF(roots); i++) {
        snprintf(path, (size_t)capacity, "%s/%s/%s%s", roots[i], folder, name, ending);
        if (sys_exists(path))
            return OK;
    }
    return err_set(ERR_CONFIG, "no '%s': it is neither a file nor a name in %s/", name, folder);
}

int plan_file_load(void *out, const struct option *table, const char *folder, const char *name,
                   struct arena *a)
{
    char path[4096];
    const struct yaml_node *root;
    TRY(plan_file_find(path, sizeof path, folder, name));
    TRY(yaml_load(path, a, &root));
    return recipe_read_map(table, out, root, a);
}

int plan_file_names(const char *folder, const char ***names, i64 *n, struct arena *a)
{
    const char *const roots[] = { ".", HEADWAY_SOURCE_DIR };
    char **found = NULL;
    int count = -1;
    for (i64 i = 0; i < COUNT_OF(roots) && count < 0; i++)
        count = sys_list(arena_printf(a, "%s/%s", roots[i], folder), &found);
    if (count < 0)
        return err_set(ERR_SYS, "no folder %s, neither here nor where Headway was built: %s", folder,
                       strerror(errno));
    *names = ARENA_ARRAY(a, const char *, count);
    *n = 0;
    for (int i = 0; i < count; i++) {
        const char *dot = strrchr(found[i], '.');
        if (dot && strcmp(dot, ".yaml") == 0)
            (*names)[(*n)++] = arena_strndup(a, found[i], dot - found[i]);
    }
    sys_free(found);
    return OK;
}
