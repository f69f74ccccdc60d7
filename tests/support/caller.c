/*
 * The program in the tests' image: make the system calls whose numbers it is given, without
 * arguments, and print "NUMBER ERRNO" for each; "stay" as an argument waits to be told to end.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	signal(SIGTERM, _exit); /* PID 1 of a container has no default action */
	setvbuf(stdout, NULL, _IOLBF, 0);
	for (int i = 1; i < argc; i++) {
		while (!strcmp(argv[i], "stay"))
			pause();
		long result = syscall(atol(argv[i]));
		printf("%s %d\n", argv[i], result < 0 ? errno : 0);
	}
	return 0;
}
