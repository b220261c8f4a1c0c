package policy

// KeysByName gives every condition key and variable that this package knows by its
// name; [NAME] stands for the attributes of things.
func KeysByName() []string {
	names := []string{"iot:Connection.Thing.Attributes[NAME]"}
	for _, known := range keyNames {
		names = append(names, known.name)
	}
	for _, name := range certNames {
		names = append(names, "iot:Certificate.Subject."+name, "iot:Certificate.Issuer."+name)
	}
	return names
}

// IsKnown tells that a name isn't one of those that the caller gives.
func IsKnown(name string) bool { return parseKey(name).id != keyOther }

// Operators gives the condition operators without prefix and suffix.
func Operators() []string {
	var names []string
	for _, row := range operatorTable() {
		names = append(names, row.name)
	}
	return names
}
