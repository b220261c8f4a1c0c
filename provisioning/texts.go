package provisioning

import (
	"encoding/json"
	"fmt"

	"github.com/fxamacker/cbor/v2"
)

// readMembers reads members of a JSON object into what stands beside their names.
// Names count exactly, as AWS has them: encoding/json takes them in any case, so
// that an AllowProvisioning would allow. Other members are ignored.
func readMembers(data []byte, members map[string]any) error {
	var object map[string]json.RawMessage
	err := json.Unmarshal(data, &object)
	if err != nil {
		return fmt.Errorf("couldn't read a JSON object: %w", err)
	}
	for name, into := range members {
		value, found := object[name]
		if !found {
			continue
		}
		err = json.Unmarshal(value, into)
		if err != nil {
			return fmt.Errorf("couldn't read %s: %w", name, err)
		}
	}
	return nil
}

// texts are parameters by name. A value of null is refused like a number: both
// decoders would take it for the empty text, and make one thing of all devices
// whose serial number is missing.
type texts map[string]string

func (t *texts) UnmarshalJSON(data []byte) error { return t.read(json.Unmarshal, data) }

func (t *texts) UnmarshalCBOR(data []byte) error { return t.read(cborDecoder.Unmarshal, data) }

var (
	_ json.Unmarshaler = (*texts)(nil)
	_ cbor.Unmarshaler = (*texts)(nil)
)

func (t *texts) read(decode func([]byte, any) error, data []byte) error {
	var values map[string]*string
	err := decode(data, &values)
	if err != nil {
		return fmt.Errorf("couldn't read a map of texts: %w", err)
	}
	*t = nil
	if values == nil {
		return nil
	}
	*t = make(texts, len(values))
	for name, value := range values {
		if value == nil {
			return fmt.Errorf("the value of %q is null and not a text", name)
		}
		(*t)[name] = *value
	}
	return nil
}
