import sys, re
from pathlib import Path
from safetensors import safe_open
from safetensors.torch import save_file
from xdyna.weights.folder import folder_hash, file_hash
F=Path('src/xdyna/assets/embedded'); p=F/'model_index.json'; s=p.read_text()
s=re.sub(r'"shared_noise": [0-9.]+', f'"shared_noise": {sys.argv[1]}', s)
if 'hold_still' not in s: s=s.replace('"refine_face": true,','"refine_face": true,\n    "hold_still": true,')
p.write_text(s)
h=folder_hash(F)
f=F/'fast.safetensors'
with safe_open(f,'pt') as g: t={k:g.get_tensor(k) for k in g.keys()}; m=dict(g.metadata())
print(m.get('xdyna_base')); m['xdyna_base']=h; save_file(t,f,metadata=m)
import hashlib; print(h, hashlib.sha256(f.read_bytes()).hexdigest())
