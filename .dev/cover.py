import glob, torch, os
from xdyna.models.warping import nearness
import torch.nn.functional as F
tot={}
for f in sorted(glob.glob('/work/scratch/lat/*.pt')):
    z=torch.load(f,weights_only=False); t=z['truth']
    if not t.human[0]: continue
    m=(F.max_pool2d(t.mask[0],8)>0.5)[:,0]
    n=nearness(z['body'][0,1:],size=(256,256),cells=(32,32))
    row=[os.path.basename(f),'%.2f'%m.float().mean()]
    for p in (.8,1,1.25,1.5,2):
        c=n<=p
        row.append('%.1f: cov %.2f over %.2f'%(p,(c&m).sum()/m.sum(),(c&~m).float().mean()))
        tot.setdefault(p,[]).append(((c&m).sum()/m.sum(),(c&~m).float().sum()/(~m).sum()))
    print(*row)
for p,v in tot.items(): print(p,[round(sum(float(a[i]) for a in v)/len(v),3) for i in (0,1)])
