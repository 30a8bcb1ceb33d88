/* begin bare PROGRAM: executes it with no arguments at all, not even its name (CVE-2021-4034).
 * begin named NAME PROGRAM ARGUMENTS...: with another name.
 * begin crowded COUNT PROGRAM ARGUMENTS...: with COUNT variables more in its environment. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

extern char **environ;

int main(int argc, char **argv)
{
	if (argc == 3 && strcmp(argv[1], "bare") == 0) {
		char *none[] = { NULL };
		execve(argv[2], none, environ);
	} else if (argc > 3 && strcmp(argv[1], "named") == 0) {
		char *program = argv[3];
		argv[3] = argv[2];
		execv(program, argv + 3);
	} else if (argc > 3 && strcmp(argv[1], "crowded") == 0) {
		long count = atol(argv[2]), old = 0;
		while (environ[old])
			old++;
		char **all = calloc(count + old + 1, sizeof *all), *names = calloc(count, 32);
		if (all == NULL || names == NULL)
			return 126;
		memcpy(all, environ, old * sizeof *all);
		for (long i = 0; i < count; i++) {
			all[old + i] = names + 32 * i;
			snprintf(all[old + i], 32, "V%ld=x", i);
		}
		environ = all;
		execv(argv[3], argv + 3);
	}
	perror("begin");
	return 126;
}
