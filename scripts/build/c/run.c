/*
 * Starts a program that needs shared libraries on a machine that may have none: with the loader and the libraries that
 * lie beside it. Which program is decided by the name this one is called by, which is a link to it.
 *
 *	nft        lib/nft
 *	others     lib/xtables-nft-multi, which looks at its name itself
 */
#define _GNU_SOURCE
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { OPTIONS = 6 };

static int fail(const char *what)
{
	fprintf(stderr, "%s: %s\n", what, strerror(errno));
	return 127;
}

int main(int argc, char **argv)
{
	char dir[PATH_MAX], *loader, *libs, *program, **args;
	const char *name;
	ssize_t n = readlink("/proc/self/exe", dir, sizeof(dir) - 1);

	if (n < 0)
		return fail("find the directory of this program by /proc/self/exe");
	dir[n] = 0;
	*strrchr(dir, '/') = 0;
	name = strrchr(argv[0], '/');
	name = name ? name + 1 : argv[0];
	args = calloc(argc + OPTIONS + 2, sizeof(*args));
	if (!args || asprintf(&libs, "%s/lib", dir) < 0 || asprintf(&loader, "%s/ld.so", libs) < 0 ||
	    asprintf(&program, "%s/%s", libs, strcmp(name, "nft") ? "xtables-nft-multi" : "nft") < 0)
		return fail("start");
	args[0] = loader;
	args[1] = "--inhibit-cache"; /* the machine's libraries may be of any version */
	args[2] = "--library-path";
	args[3] = libs;
	args[4] = "--argv0";
	args[5] = argv[0];
	args[6] = program;
	for (int i = 1; i < argc; i++)
		args[OPTIONS + i] = argv[i];
	/* What is meant for the machine's own programs. */
	unsetenv("LD_PRELOAD");
	unsetenv("LD_LIBRARY_PATH");
	unsetenv("LD_AUDIT");
	execv(loader, args);
	return fail(loader);
}
