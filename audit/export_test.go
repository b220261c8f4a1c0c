package audit

// ReadLists gives how many revocation lists a file has.
func ReadLists(file string) (int, error) {
	lists, _, err := readLists(file)
	return len(lists), err
}
