// A PKCS#11 module that passes everything on to SoftHSM, except that it does harm where
// a file beside it says so:
//
//	crash    C_Sign dies of a bad pointer
//	hang     C_Sign waits until the file is gone
//	device   C_Sign answers CKR_DEVICE_ERROR
//	garbage  C_Sign gives a signature of nothing but ones
//	chatter  C_Sign prints to standard output
//
// It notes each login in the file "logins", and prints the PIN to standard error, as a
// vendor's debugging might.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "pkcs11go.h"

static CK_FUNCTION_LIST real, faulty;
static char directory[4096];

static const char *beside(const char *name) {
	static __thread char path[4200];
	snprintf(path, sizeof path, "%s/%s", directory, name);
	return path;
}

static int told(const char *name) { return access(beside(name), F_OK) == 0; }

static CK_RV sign(CK_SESSION_HANDLE session, CK_BYTE_PTR data, CK_ULONG length, CK_BYTE_PTR signature, CK_ULONG_PTR signatureLength) {
	if (told("crash")) *(volatile int *)8 = 1;
	if (told("chatter")) { printf("signing %lu bytes\n", length); fflush(stdout); }
	int fd = open(beside("signing"), O_CREAT | O_WRONLY, 0600);
	if (fd >= 0) close(fd);
	while (told("hang")) usleep(10000);
	if (told("device")) return CKR_DEVICE_ERROR;
	CK_RV rv = real.C_Sign(session, data, length, signature, signatureLength);
	if (rv == CKR_OK && signature != NULL && told("garbage")) memset(signature, 1, *signatureLength);
	return rv;
}

static CK_RV login(CK_SESSION_HANDLE session, CK_USER_TYPE user, CK_UTF8CHAR_PTR pin, CK_ULONG length) {
	int fd = open(beside("logins"), O_CREAT | O_WRONLY | O_APPEND, 0600);
	if (fd >= 0) { (void)!write(fd, "x", 1); close(fd); }
	fprintf(stderr, "C_Login with PIN %.*s\n", (int)length, pin);
	return real.C_Login(session, user, pin, length);
}

CK_RV C_GetFunctionList(CK_FUNCTION_LIST_PTR_PTR list) {
	Dl_info self;
	dladdr((void *)C_GetFunctionList, &self);
	char path[4096];
	strncpy(path, self.dli_fname, sizeof path - 1);
	strncpy(directory, dirname(path), sizeof directory - 1);
	void *library = dlopen(SOFTHSM, RTLD_NOW | RTLD_LOCAL);
	if (library == NULL) return CKR_GENERAL_ERROR;
	CK_C_GetFunctionList get = (CK_C_GetFunctionList)dlsym(library, "C_GetFunctionList");
	CK_FUNCTION_LIST_PTR its;
	CK_RV rv = get(&its);
	if (rv != CKR_OK) return rv;
	real = *its;
	faulty = real;
	faulty.C_Sign = sign;
	faulty.C_Login = login;
	faulty.C_GetFunctionList = C_GetFunctionList;
	*list = &faulty;
	return CKR_OK;
}
