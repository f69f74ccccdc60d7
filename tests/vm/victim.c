/*
 * The process that is probed, and the one that sweeps the system calls. Static: it is all that its
 * container needs.
 *
 *   victim answer ROUNDS [NAME]
 *                         make "/ready", wait for "/go" (or "/ready-NAME", "/go-NAME"), remove both,
 *                         call the probed function ROUNDS times, check each answer; exit 42 if every
 *                         one was right, 1 if not
 *   victim stay           wait to be killed
 *   victim sweep [stay]   make every call 0-600 with arguments all 0, then all -1, each in a child
 *                         of its own; print "number arguments outcome" for each; with "stay" wait
 *                         for "/go" then
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define LAST_CALL 600
#define UNREPORTED 1000000L

/* The uretprobe goes on this function; what it returns is where `ret` jumps if 335 is denied. */
__attribute__((noinline, noclone)) long answer(long n)
{
	asm volatile("");
	return 3 * n + 1;
}

static int probed(long rounds, const char *name)
{
	char ready[64], go[64];
	snprintf(ready, sizeof ready, "/ready%s%s", *name ? "-" : "", name);
	snprintf(go, sizeof go, "/go%s%s", *name ? "-" : "", name);
	close(open(ready, O_WRONLY | O_CREAT | O_CLOEXEC, 0644));
	while (access(go, F_OK))
		usleep(50000); /* a dozen wait at once, on one emulated processor */
	unlink(go);
	unlink(ready);
	for (long n = 0; n < rounds; n++)
		if (answer(n) != 3 * n + 1)
			return 1;
	puts("right");
	return 42;
}

/* Inline, so that vfork's child cannot overwrite a return address of its parent's. */
static inline __attribute__((always_inline)) long raw(long nr, long v)
{
	register long r10 asm("r10") = v;
	register long r8 asm("r8") = v;
	register long r9 asm("r9") = v;
	asm volatile("syscall" : "+a"(nr), "+r"(r10), "+r"(r8), "+r"(r9)
		     : "D"(v), "S"(v), "d"(v) : "rcx", "r11", "memory");
	return nr;
}

static void one(long nr, long v, volatile long *result)
{
	int status;
	*result = UNREPORTED;
	pid_t child = fork();
	if (child == 0) {
		alarm(1); /* for those that wait for ever: pause, select, ppoll */
		*result = raw(nr, v);
		_exit(0);
	}
	while (waitpid(child, &status, 0) < 0 && errno == EINTR)
		;
	printf("%ld %ld ", nr, v);
	if (WIFSIGNALED(status))
		printf("signal %d\n", WTERMSIG(status));
	else if (*result == UNREPORTED)
		printf("ended\n");
	else if (*result < 0 && *result >= -4095)
		printf("errno %ld\n", -*result);
	else
		printf("done\n");
}

static int sweep(int stays)
{
	if (prctl(PR_GET_SECCOMP) != SECCOMP_MODE_FILTER) {
		fputs("sweep: only under a filter: it would change the machine\n", stderr);
		return 2;
	}
	/* A place for each call: what fork has made of a child may report its own end late. */
	long *result = mmap(NULL, 2 * (LAST_CALL + 1) * sizeof *result, PROT_READ | PROT_WRITE,
			    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	setvbuf(stdout, NULL, _IOLBF, 0);
	for (long v = 0; v >= -1; v--)
		for (long nr = 0; nr <= LAST_CALL; nr++)
			one(nr, v, result++);
	while (stays && access("/go", F_OK))
		usleep(10000);
	return 42;
}

int main(int argc, char **argv)
{
	if ((argc == 3 || argc == 4) && !strcmp(argv[1], "answer"))
		return probed(atol(argv[2]), argc == 4 ? argv[3] : "");
	while (argc == 2 && !strcmp(argv[1], "stay"))
		pause();
	if (argc == 2 && !strcmp(argv[1], "sweep"))
		return sweep(0);
	if (argc == 3 && !strcmp(argv[1], "sweep") && !strcmp(argv[2], "stay"))
		return sweep(1);
	return 2;
}
