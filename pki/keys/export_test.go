package keys

// ParseKeyFile reads the key file of a TPM and gives what it would be written as.
func ParseKeyFile(data []byte) ([]byte, error) {
	file, err := parseKeyFile(data)
	if err != nil {
		return nil, err
	}
	return file.encode(), nil
}
